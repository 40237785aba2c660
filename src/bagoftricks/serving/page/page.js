// Takes an image, asks the server, shows the answer. What others chose (class names, errors) is only ever text.
"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const make = (tag, text, style) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (style) made.className = style;
    return made;
  };
  const TOP = 5;
  const NOTHING = "Nothing in this view speaks for the class chosen.";
  let model = null;
  let asking = null; // what aborts the question under way

  const percent = (p) => p > 0.9995 ? "> 99.9 %" : p > 0 && p < 0.0005 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`;
  const mebibytes = (count) => `${+(count / 2 ** 20).toFixed(2)} MiB`;

  const complain = (text) => {
    at("message").textContent = text;
    at("message").hidden = !text;
  };
  const fail = (text) => {
    complain(text);
    at("result").hidden = true;
  };
  const ask = async (address, options) => {
    let answer;
    try {
      answer = await fetch(address, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer. Is tricks serve still running?");
    }
    let said = null;
    try { said = await answer.json(); } catch (error) { if (error.name === "AbortError") throw error; }
    if (!answer.ok || said === null) throw new Error(said?.error ?? `The server answers ${answer.status}.`);
    return said;
  };

  const describe = () => {
    const { input, limits } = model;
    const pixels = `${input.size}\u00a0×\u00a0${input.size} pixels`;
    const crop = {
      center: `the middle ${+(100 * input.crop_pct).toFixed(1)}\u00a0% of the short side`,
      pad: "the whole image, on a square of a plain colour",
      squash: "the whole image, pressed into a square",
    }[input.crop];
    at("name").textContent = model.model;
    at("about").textContent = `${model.architecture} knows ${model.classes.length.toLocaleString("en")} classes and sees ${pixels}.`;
    at("limits").textContent = `Up to ${mebibytes(limits.file_bytes)}. It is sent to this server only, and not stored.`;
    at("cut").textContent = `This is what the network sees: ${crop}, at ${pixels}.`;
    at("calibration").textContent = model.calibrated
      ? `Probabilities are calibrated on validation images (temperature ${model.temperature.toFixed(2)}). They hold for images like those; of an image of none of these classes the model says one all the same.`
      : "Probabilities are not calibrated: take them as an order. Of an image of none of these classes the model says one all the same.";
    const facts = {
      Folder: model.model,
      Architecture: model.architecture,
      Input: `${crop}, at ${pixels}`,
      Temperature: model.calibrated ? model.temperature.toFixed(3) : "none was fitted",
      "Licence of the initial weights": model.licence || "none inherited",
      ...(model.teacher_licence && { "Licence of its teacher's weights": model.teacher_licence }),
      "Computed on": `${model.device}, ${model.precision}`,
      Version: `bagoftricks ${model.version}`,
      Classes: model.classes.join(", "),
    };
    at("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
    at("curl").textContent = `curl -F file=@photo.jpg '${new URL("api/predict", location.href)}?top_k=3'`;
  };

  const showMap = (prediction) => {
    const map = prediction.heatmap;
    at("map").hidden = !map;
    if (map) at("map").src = map;
    at("map").alt = map ? `Heat map: where it speaks for ${prediction.label}` : "";
    at("for").textContent = prediction.label;
    at("legend").hidden = at("blend").hidden = !map;
    at("none").hidden = Boolean(map);
  };

  const row = (prediction, first) => {
    const label = make("label", undefined, "class");
    const choice = make("input");
    choice.type = "radio";
    choice.name = "class";
    choice.checked = first;
    choice.addEventListener("change", () => showMap(prediction));
    const bar = make("span", undefined, "bar");
    bar.setAttribute("aria-hidden", "true");
    const fill = make("span");
    fill.style.width = `${100 * prediction.prob}%`;
    bar.append(fill);
    label.append(choice, make("bdi", prediction.label), make("span", percent(prediction.prob), "prob"), bar);
    return label;
  };

  // The frame is left out where the browser shows the image otherwise than the server read it, and where all of it is seen.
  const frame = (answer) => {
    const { width, height } = answer;
    const photo = at("photo");
    const side = model.input.crop === "center" ? model.input.crop_pct * Math.min(width, height) : 0;
    const alike = Math.abs(photo.naturalWidth * height - photo.naturalHeight * width) <= 0.01 * photo.naturalWidth * height;
    at("box").hidden = !side || !alike;
    Object.assign(at("box").style, {
      left: `${50 * (1 - side / width)}%`, width: `${100 * side / width}%`,
      top: `${50 * (1 - side / height)}%`, height: `${100 * side / height}%`,
    });
    at("size").textContent = `The whole image, ${width}\u00a0×\u00a0${height} pixels.${at("box").hidden ? "" : " The network sees what is bright."}`;
    at("whole").hidden = false;
  };

  const show = (answer, file) => {
    const { predictions } = answer;
    at("view").src = answer.view;
    at("predictions").replaceChildren(...predictions.map((prediction, i) => row(prediction, i === 0)));
    at("none").textContent = answer.heatmap_note || NOTHING;
    showMap(predictions[0]);
    const photo = at("photo");
    if (photo.src) URL.revokeObjectURL(photo.src);
    at("whole").hidden = true;
    photo.onload = () => frame(answer);
    photo.onerror = () => { at("whole").hidden = true; }; // a kind that browsers do not show
    photo.src = URL.createObjectURL(file);
    at("result").hidden = false;
    document.body.classList.add("some");
    at("status").textContent = `${predictions[0].label}, ${percent(predictions[0].prob)}`;
  };

  const look = async (file) => {
    asking?.abort();
    complain("");
    if (!file) return fail("That holds no image. Drop, paste or choose an image file.");
    if (model && file.size > model.limits.file_bytes) {
      return fail(`This file has ${mebibytes(file.size)}; at most ${mebibytes(model.limits.file_bytes)} are taken.`);
    }
    const own = asking = new AbortController();
    document.body.setAttribute("aria-busy", "true");
    at("status").textContent = "Looking …";
    try {
      model ?? await start();
      const answer = await ask(`api/predict?heatmap=all&top_k=${TOP}`, {
        method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" }, signal: own.signal,
      });
      show(answer, file);
    } catch (error) {
      if (error.name !== "AbortError") {
        at("status").textContent = "";
        fail(error.message);
      }
    } finally {
      if (asking === own) document.body.removeAttribute("aria-busy");
    }
  };

  const start = async () => {
    model = await ask("api/model");
    describe();
  };

  at("pick").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", () => {
    if (at("file").files.length) look(at("file").files[0]);
    at("file").value = ""; // the same file may be chosen again
  });
  at("opacity").addEventListener("input", () => { at("map").style.opacity = at("opacity").value / 100; });
  at("map").style.opacity = at("opacity").value / 100;
  document.addEventListener("paste", (event) => { look(event.clipboardData?.files[0]); });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    look(event.dataTransfer?.files[0]);
  });
  start().catch((error) => fail(error.message));
})();
