"""What crosses the wire, and the words for it. Standard library and msgspec only: no I/O, no clock, no asyncio."""
