"""Calibrate forecasts on public runs, and hold every choice against repositories that were left out.

    ENTROPILOT_DATA=… python -m experiments.forecast_calibration            # the tables of docs/results/real_runs.md
    ENTROPILOT_DATA=… python -m experiments.forecast_calibration --write    # and the constants in the package

The source of a run is its repository in SOURCES.md, and sources count equally however many runs they have. A prefix is
all steps up to a share of the run; the target is the run's last measurement.
"""
