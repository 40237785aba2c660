"""Images: folders, the embedded digits, splits, the decoded cache, batches."""
