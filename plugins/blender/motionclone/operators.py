"""The operators behind the buttons."""

import random
from pathlib import Path

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from . import jobs, preferences, references, strips

# Reported to the user, rather than as faults of the extension; the library's errors are RuntimeErrors.
USER_ERRORS = (strips.StripError, OSError, RuntimeError)


class _Sequencer:
    """An operator that queues work on the sequencer's strips and reports what goes wrong. There is nothing to undo yet,
    and nothing to do again with other values: the strip that comes of it is a step of its own."""

    bl_options = set()

    @classmethod
    def poll(cls, context):
        scene = strips.sequencer_scene(context)
        return scene is not None and scene.sequence_editor is not None

    def execute(self, context):
        try:
            self.start(context, strips.sequencer_scene(context))
        except USER_ERRORS as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class MOTIONCLONE_OT_clone(_Sequencer, bpy.types.Operator):
    """Make a new clip that moves like the reference strip"""

    bl_idname = "motionclone.clone"
    bl_label = "Clone Motion"

    def start(self, context, scene):
        settings = scene.motionclone
        strip = strips.reference(scene, settings.reference)
        jobs.clone(context, strip, jobs.values_of(scene))


class MOTIONCLONE_OT_batch(_Sequencer, bpy.types.Operator):
    """Clone the motion of each selected strip, one after another"""

    bl_idname = "motionclone.batch"
    bl_label = "Clone Selected"

    def start(self, context, scene):
        top = strips.collection(scene.sequence_editor)
        chosen = [strip.name for strip in top if strip.select and strip.type not in strips.SILENT]
        if not chosen:
            raise strips.StripError("Select the strips whose motion is to be cloned.")
        # All are looked at before the first is queued.
        for name in chosen:
            strips.reference(scene, name)
        for name in chosen:
            jobs.clone(context, strips.find(scene, name), jobs.values_of(scene))


class MOTIONCLONE_OT_regenerate(_Sequencer, bpy.types.Operator):
    """Make the selected clone again, from the settings that it keeps"""

    bl_idname = "motionclone.regenerate"
    bl_label = "Regenerate"

    new_seed: BoolProperty(name="New Seed", default=True, description="Take another seed; the same clip otherwise")

    @classmethod
    def poll(cls, context):
        if not super().poll(context):
            return False
        active = strips.sequencer_scene(context).sequence_editor.active_strip
        return active is not None and "motionclone" in active

    def start(self, context, scene):
        kept = scene.sequence_editor.active_strip["motionclone"].to_dict()
        now = jobs.values_of(scene)
        values = {name: kept.get(name, now[name]) for name in now}
        if self.new_seed:
            values["seed"] = random.randrange(2**31)
        found = references.marked(scene, kept.get("reference_id"), kept["reference"])
        strip = strips.reference(scene, found.name if found else kept["reference"])
        jobs.clone(context, strip, values, kept["motion"])


class MOTIONCLONE_OT_extract(_Sequencer, bpy.types.Operator):
    """Read the reference strip's motion into the motion library"""

    bl_idname = "motionclone.extract"
    bl_label = "Extract Motion"

    title: StringProperty(name="Name", description="What the motion is called; as the strip when empty")

    def invoke(self, context, _event):
        return context.window_manager.invoke_props_dialog(self)

    def start(self, context, scene):
        settings = scene.motionclone
        strip = strips.reference(scene, settings.reference)
        jobs.extract(context, strip, jobs.values_of(scene), self.title or strip.name)


class MOTIONCLONE_OT_apply(_Sequencer, bpy.types.Operator):
    """Make a new clip that moves like this motion, at the place of the reference strip"""

    bl_idname = "motionclone.apply"
    bl_label = "Apply Motion"

    folder: StringProperty(name="Motion", subtype="DIR_PATH", options={"SKIP_SAVE"})

    def start(self, context, scene):
        settings = scene.motionclone
        strip = strips.reference(scene, settings.reference)
        values = jobs.values_of(scene)
        if values["mode"] != "TEXT":
            raise strips.StripError("A motion of the library goes with text alone: set the mode to Text.")
        jobs.clone(context, strip, values, str(Path(self.folder) / "motion.safetensors"))


class MOTIONCLONE_OT_cancel(bpy.types.Operator):
    """Cancel this job"""

    bl_idname = "motionclone.cancel"
    bl_label = "Cancel"

    index: IntProperty(name="Job", default=-1, description="Place in the queue; -1 cancels all", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, _context):
        return jobs.session is not None and jobs.session.busy

    def execute(self, _context):
        chosen = jobs.session.jobs
        if self.index >= 0:
            chosen = chosen[self.index : self.index + 1]
        for job in chosen:
            if not job.ended:
                job.cancel()
        return {"FINISHED"}


class MOTIONCLONE_OT_save(bpy.types.Operator):
    """Write this finished result into the folder that is chosen now"""

    bl_idname = "motionclone.save"
    bl_label = "Save"

    index: IntProperty(name="Job", description="Place in the queue", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, _context):
        return jobs.session is not None and any(job.unsaved for job in jobs.session.jobs)

    def execute(self, context):
        for job in jobs.session.jobs[self.index : self.index + 1]:
            try:
                if job.unsaved:
                    jobs.save(job, context)
            except USER_ERRORS as error:
                self.report({"ERROR"}, str(error))
                return {"CANCELLED"}
        return {"FINISHED"}


class MOTIONCLONE_OT_clear(bpy.types.Operator):
    """Forget the jobs that have ended"""

    bl_idname = "motionclone.clear"
    bl_label = "Clear Ended"

    @classmethod
    def poll(cls, _context):
        return jobs.session is not None and any(job.ended for job in jobs.session.jobs)

    def execute(self, _context):
        jobs.session.clear()
        return {"FINISHED"}


class MOTIONCLONE_OT_test(bpy.types.Operator):
    """Try the library, the devices and the bundle"""

    bl_idname = "motionclone.test"
    bl_label = "Test"

    def execute(self, context):
        jobs.open_session().examine(preferences.place(context))
        return {"FINISHED"}
