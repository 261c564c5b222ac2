"""The command line. Commands import what they need in their bodies, so `--help` stays fast."""
