"""What every floor stands on: paths, devices, records, checked parameters, names."""
