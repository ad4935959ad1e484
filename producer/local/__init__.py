"""A broker and consumers of one's own, on this machine: for `penstock up`, `run-batch` and the demo."""
