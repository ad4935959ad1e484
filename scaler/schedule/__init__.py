"""`penstock schedule`: what a pool's windows will do, before they do it."""
