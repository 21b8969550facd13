import contextlib
import io
import os
import runpy
import unittest

import paths  # noqa: F401
import install
from programs import WithPrograms


class Installing(WithPrograms):
    def run_it(self, *words):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            install.main(list(words))
        return out.getvalue()

    def files(self):
        return sorted(os.path.relpath(os.path.join(folder, name), self.folder)
                      for root in (".local", "data") for folder, _, names in os.walk(self.at(root)) for name in names)

    def test_each_systems_folder(self):
        for system, variables, expected in [
            ("linux", {"XDG_DATA_HOME": "/elsewhere"}, "/home/me/.local/share/DaVinciResolve/Fusion/Scripts/Utility"),
            ("darwin", {}, "/home/me/Library/Application Support/Blackmagic Design/DaVinci Resolve/Fusion/Scripts/Utility"),
            ("win32", {"APPDATA": "/roaming"},
             "/roaming/Blackmagic Design/DaVinci Resolve/Support/Fusion/Scripts/Utility"),
        ]:  # fmt: skip
            self.assertEqual(install.scripts_folder(system, variables, "/home/me"), expected)

    def test_what_is_installed_runs_without_its_source_and_goes_again(self):
        self.assertIn("would write", self.run_it("--dry-run"))
        self.assertEqual(self.files(), [])
        printed = self.run_it()
        self.run_it()
        menu = os.path.join(install.scripts_folder(), install.MENU_ENTRY)
        self.assertIn(menu, printed)
        self.assertIn("data/motionclone/resolve/motionclone_resolve/page.html", self.files())
        # Resolve runs it without telling where it lies.
        with open(menu, encoding="utf-8") as file:
            names = {"__name__": "run", "resolve": "given"}
            exec(compile(file.read(), "<menu>", "exec"), names)
        self.assertEqual(names["MODULES"], self.at("data/motionclone/resolve"))
        self.assertEqual(names["find_resolve"](), "given")
        self.assertIn("would remove", self.run_it("--uninstall", "--dry-run"))
        self.assertIn("removing", self.run_it("--uninstall"))
        self.assertEqual(self.files(), [])
        self.assertIn("nothing is installed", self.run_it("--uninstall"))

    def test_files_of_somebody_else_stay(self):
        package = self.at("data/motionclone/resolve/motionclone_resolve")
        menu = os.path.join(install.scripts_folder(), install.MENU_ENTRY)
        for path in (os.path.join(package, "job.py"), menu):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write("mine")
            with self.assertRaisesRegex(SystemExit, "move"):
                self.run_it()
            self.assertIn("nothing is installed", self.run_it("--uninstall"))
            with open(path) as file:
                self.assertEqual(file.read(), "mine")
            os.remove(path)
        self.run_it()
        mine = os.path.join(package, "notes.txt")
        open(mine, "w").close()
        self.run_it()
        self.run_it("--uninstall")
        self.assertEqual(os.listdir(package), ["notes.txt"])

    def test_the_entry_in_the_sources_starts_too(self):
        entry = os.path.join(paths.ROOT, "motionclone_clone_current.py")
        self.assertEqual(runpy.run_path(entry, run_name="read")["MODULES"], paths.ROOT)


if __name__ == "__main__":
    unittest.main()
