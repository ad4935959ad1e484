"""The benches behind `penstock bench NAME`: everything a claim rests on, in one run on one machine."""
