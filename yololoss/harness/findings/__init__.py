"""What is shown and saved of a broken law: text, case file, picture, table, report. Judges nothing."""
