"""What parts of a report are called, for those who look for them. Imports nothing."""

PAGE = "report.html"
FINAL_SCORES = "final_scores"  # the table of what the last stages score
