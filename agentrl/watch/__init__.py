"""Never silent: a thread that tells what a run waits for and who holds up its event loop."""
