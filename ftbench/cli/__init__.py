"""One file a command: parse, make specs, one call, print."""
