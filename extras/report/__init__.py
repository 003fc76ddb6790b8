"""The report page of a landmark test: charts, faces, comparisons with other runs."""
