"""The command line: flags, the terminal and exit statuses, over the workflows and nothing else."""
