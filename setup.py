"""The part of the package's build that pyproject.toml cannot say: the guest agent is compiled where a compiler is."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent / "src"))

from enisle.errors import EnisleError
from enisle.guest import agent_build


class BuildWithAgent(build_py):
    """Puts the compiled agent beside its sources in the built package; without one it is compiled on first use."""

    def run(self) -> None:
        super().run()
        target = Path(self.build_lib) / "enisle" / "guest" / "agent"
        if not target.is_dir():  # an editable install runs from the sources
            return
        try:
            agent_build.compile_agent(target / agent_build.PREBUILT)
        except EnisleError as error:
            self.announce(f"the guest agent is compiled on first use: {error}", level=3)
            return
        (target / agent_build.PREBUILT_STAMP).write_text(agent_build.stamp())


setup(cmdclass={"build_py": BuildWithAgent})
