"""Values of the task-aligned loss that never change."""
