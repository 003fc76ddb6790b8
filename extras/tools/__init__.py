"""The commands of main.py beside its main job: --audit, --predict, --show-data, --sweep and --list-nets."""
