"""Shows and saves broken laws: text, case file, picture, table, report. Judges nothing."""
