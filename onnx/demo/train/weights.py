"""The weights that phases leave, as files of a folder."""

from safetensors.torch import load_file, save_file

RESULTS = {  # the weights that each phase leaves
    "vae": ["vae"],
    "images": ["unet_images", "text_images"],
    "clips": ["unet", "text"],
    "rgb": ["rgb"],
    "outline": ["scribble_outline"],
    "scribble": ["scribble"],
}


def save(folder, name, module):
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f"{name}.part"
    save_file({k: v.detach().float().cpu().contiguous() for k, v in module.state_dict().items()}, beside)
    beside.rename(folder / f"{name}.safetensors")


def load(folder, name, module):
    """Loads weights into a module; says whether they were there."""
    path = folder / f"{name}.safetensors"
    if path.exists():
        module.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return path.exists()


class Weights:
    """The weights of finished phases in `folder`, those in `start` to begin with, and the phases to be trained."""

    def __init__(self, folder, start, phases):
        self.folder, self.start, self.phases = folder, start, phases

    def missing(self):
        """The phases that are to be trained."""
        return [p for p in self.phases if not self.over(p)]

    def over(self, phase):
        """Whether what a phase leaves is there."""
        return all((self.folder / f"{name}.safetensors").exists() for name in RESULTS[phase])

    def ready(self, phase, *modules):
        """Loads what a phase leaves; says whether the phase is over. What `start` holds is where a phase that is to be
        trained begins, and the result of one that is not."""
        named = list(zip(RESULTS[phase], modules))
        if all([load(self.folder, name, module) for name, module in named]):
            return True
        self.began = self.start is not None and all([load(self.start, name, module) for name, module in named])
        if phase in self.phases:
            return False
        if self.began:
            self.save(phase, *modules)
        return self.began

    def save(self, phase, *modules):
        for name, module in zip(RESULTS[phase], modules):
            save(self.folder, name, module)
