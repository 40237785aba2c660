"""Calibration: how often the statistics err on simulated studies, and how often they find what is there.

`make calibrate`, or `python -m bench.calibrate --help`. The figures stand in docs/explanation/statistics.md.

| module    | what it holds                                                                                   |
|-----------|-------------------------------------------------------------------------------------------------|
| designs   | the designs, their contrasts, cell means that give chosen effects                               |
| noise     | what runs vary by: Gaussian, skewed, heavy-tailed, unequal, or rows of a pool                   |
| batch     | many studies at once through `studies.inference`, and a check that `analyse` says the same      |
| pool      | accuracies of a cheap classifier on really re-split digits                                      |
| errors    | false findings, false equivalences, coverage                                                    |
| finds     | power, verdicts, sign-flip, P(better)                                                           |
| resampled | the same from the pool, and claims about new data                                               |
| tables    | figures as Markdown                                                                             |

Shapes: S studies, n blocks, C cells, E effects (contrasts). Units are points: a difference of two runs of one block
has standard deviation 1 unless said otherwise, and the margin is 0.5.
"""
