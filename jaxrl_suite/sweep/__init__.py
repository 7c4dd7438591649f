"""Many runs from one command: grids, tasks, executors and the loop that works them off."""
