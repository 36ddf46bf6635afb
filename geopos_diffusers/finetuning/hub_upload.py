"""final/ on the Hub: refused before the training where it could not work, complete on the disk before it is sent."""

import json
import shutil
from pathlib import Path
from typing import Any

from ..adapters.model_card import plain_text
from ..errors import AdapterError, ConfigError

CARD = "README.md"


class HubUpload:
    """The upload of a run's final/ to a repository, which is made at the end if it does not exist.

    folder: of the run. repo_id: owner/name; by default the user's, with the name of the folder.

    Raises:
        ConfigError: no login, no network, or no right to write there. Nothing is made yet.
    """

    def __init__(self, folder: str | Path, repo_id: str | None, private: bool) -> None:
        from huggingface_hub import HfApi

        self.folder, self.private, self.api = Path(folder), private, HfApi()
        try:
            user = self.api.whoami()
            self.repo_id = repo_id or f"{user['name']}/{self.folder.resolve().name}"
            if self.api.repo_exists(self.repo_id):
                self.api.auth_check(self.repo_id, write=True)
                return
        except Exception as error:  # the Hub's client raises many unrelated types for no network, no login, no right
            raise ConfigError(f"push_to_hub cannot work: {_reason(error)}") from error
        owners = [user["name"], *(organisation["name"] for organisation in user.get("orgs", []))]
        if self.repo_id.partition("/")[0] not in owners:
            raise ConfigError(f"push_to_hub: {self.repo_id} is not below {' or '.join(owners)}, where you may write")

    def send(self) -> str:
        """Upload final/. Returns the address of the commit.

        Raises:
            AdapterError: it failed; final/ is complete on the disk.
        """
        final = self.folder / "final"
        try:
            self.api.create_repo(self.repo_id, private=self.private, exist_ok=True)
            message = "Upload fine-tuned weights"
            return self.api.upload_folder(repo_id=self.repo_id, folder_path=final, commit_message=message).commit_url
        except Exception as error:
            later = f"{final} is complete: hf upload {self.repo_id} {final}"
            raise AdapterError(f"cannot upload to {self.repo_id}: {_reason(error)}; {later}") from error


def complete_card(final: Path, run: Path, facts: dict[str, Any], scores: dict[str, Any] | None) -> None:
    """Put a card with facts, curves, the last validation images and scores into a folder of trained weights.

    A card that an adapter has already is continued.

    Args:
        final: the folder. run: where losses.png and the like are. scores: of the best weights, as best.json holds them.
    """
    card = final / CARD
    if card.is_file():
        text = card.read_text(encoding="utf-8")
    else:
        lines = ["---", "library_name: diffusers", "tags: [geopos, diffusers]", "---", "# Fine-tuned weights", ""]
        lines += [f"`{facts['train']}` of {plain_text(str(facts['model']))}.", "", "## Training"]
        text = "\n".join([*lines, "```json", json.dumps(facts, indent=2, default=str), "```", ""])
    pictures = {"Losses": run / "losses.png", "Scores while training": run / "evaluation" / "scores.png"}
    if grids := sorted(run.glob("validation-*.png")):
        pictures["Validation images"] = grids[-1]
    for heading, picture in pictures.items():
        if picture.is_file():
            shutil.copyfile(picture, final / picture.name)
            text += f"\n## {heading}\n![{heading}]({picture.name})\n"
    if scores is not None:
        text += f"\n## Best weights\n```json\n{json.dumps(scores, indent=2)}\n```\n"
    card.write_text(text, encoding="utf-8")


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
