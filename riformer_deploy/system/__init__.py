"""What the machine is: its driver, its GPUs' state, its memory and cores."""
