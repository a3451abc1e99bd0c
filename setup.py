"""Packaging. The versions stand in requirements/, nowhere else."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def read_requirements(name):
    """Requirement lines of requirements/``name``.txt, comments dropped."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [ln.strip() for ln in lines if ln.strip() and ln[0] != '#']


def read_version():
    scope = {}
    exec((ROOT / 'mmrkkd' / 'version.py').read_text(), scope)
    return scope['__version__']


def read_readme():
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.is_file() else ''


class BuildWithMim(build_py):
    """Copies configs, tools and the model index to ``mmrkkd/.mim``.

    OpenMMLab's tools look for them there. They are copied into the wheel
    only: an editable installation reads the checkout itself, and a link
    inside the checkout would be one more thing to fall out of step (and
    would be followed by tools that search the tree).
    """

    def run(self):
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib) / 'mmrkkd' / '.mim'
        # A file that was deleted since the last build must not stay.
        shutil.rmtree(target, ignore_errors=True)
        ignore = shutil.ignore_patterns('__pycache__', '*.pyc')
        for name in ('configs', 'tools'):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target / name, ignore=ignore)
        if (ROOT / 'model-index.yml').is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / 'model-index.yml', target)


setup(
    name='mmrkkd',
    version=read_version(),
    description='Rank-based knowledge distillation for OpenMMLab',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmrkkd', 'mmrkkd.*']),
    entry_points={'console_scripts': ['mmrkkd = mmrkkd.__main__:main']},
    # The C code is built on the machine that runs it.
    package_data={
        'mmrkkd.ops.backends.cpu': ['*.[ch]'],
        'mmrkkd.report': ['assets/*'],
    },
    install_requires=read_requirements('runtime'),
    # torch and the two families are extras on purpose: see runtime.txt.
    extras_require={
        name: read_requirements(name)
        for name in ('torch', 'onedl', 'openmmlab', 'report', 'docs', 'dev')
    },
    cmdclass={'build_py': BuildWithMim},
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False,
)
