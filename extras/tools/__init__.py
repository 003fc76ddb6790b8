"""The commands of main.py, such as --audit, --predict and --sweep."""
