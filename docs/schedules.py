"""Draws `schedules.png`: five stages of each schedule, and of each way to go on between stages.

python docs/schedules.py
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from fomo_dagster.cli.schedules import rates_by_step
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.plots.schedule import schedules_plot

STAGES, STEPS = 5, 200
SHOWN = {
    "cosine": {},
    "rsqrt": {"name": "rsqrt"},
    "cosine, autoregressive": {"recovery": "autoregressive"},
    "rsqrt, autoregressive": {"name": "rsqrt", "recovery": "autoregressive"},
    "cosine, dynamic": {"recovery": "dynamic"},
    "rsqrt, continued": {"name": "rsqrt", "recovery": "continued"},
    "cosine, continued (over 5 stages)": {"recovery": "continued", "stages": STAGES},
    "rsqrt, recovered": {"name": "rsqrt", "recovery": "recovered"},
    "cosine, recovered (over 5 stages)": {"recovery": "recovered", "stages": STAGES},
    "rsqrt, recovered_released": {"name": "rsqrt", "recovery": "recovered_released"},
    "cosine_annealing": {"name": "cosine_annealing"},
    "wsd (cooldown 0.2)": {"name": "wsd", "cooldown": 0.2},
    "infinite": {"name": "infinite"},
    "wsd, continued (cooldown 0.2)": {"name": "wsd", "cooldown": 0.2, "recovery": "continued"},
    "constant": {"name": "constant"},
    "multistep (milestones 0.5, 0.8)": {"name": "multistep", "milestones": [0.5, 0.8]},
}


def main() -> None:
    """Write the picture beside this file."""
    pictures = {}
    for name, schedule in SHOWN.items():
        settings = TrainingSettings.model_validate(
            {"schedule": schedule, "optimiser": {"learning_rate": 1.0}, "budget": {"steps": STEPS}}
        )
        pictures[name] = rates_by_step(settings, STAGES, STEPS)
    picture = Image.open(io.BytesIO(schedules_plot(pictures)))
    picture.quantize(32).save(Path(__file__).with_name("schedules.png"), optimize=True)


if __name__ == "__main__":
    main()
