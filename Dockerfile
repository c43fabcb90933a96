# Two images from one base: `submission`, which mitigations are built on, and `harness`, which runs the benchmark.
#   docker build --target submission -t emperf/submission:<version> .
# BASE is named by its digest, never by a tag alone. Another one: --build-arg BASE=<image>@sha256:<64 digits>, or, where
# there is no registry, the id (sha256:...) of the image that emperf makes of this machine's own Python; that one has
# the packages already, and wants DOCKER_BUILDKIT=0 and --network none, because BuildKit takes an id for the name of
# an image to pull.
ARG BASE=python:3.11.16-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

FROM ${BASE} AS pinned
ARG BASE
USER root
RUN case "$BASE" in \
      *sha256:????????????????????????????????????????????????????????????????) ;; \
      *) echo "BASE=$BASE is not pinned: name the base image by its sha256 digest" >&2; exit 1 ;; \
    esac

FROM pinned AS packages
COPY requirements.lock /opt/emperf/
RUN python3 -c "import sys; from importlib.util import find_spec as find; \
      sys.exit(not all(map(find, 'torch transformers peft deepspeed safetensors docker click'.split())))" \
    || python3 -m pip install --no-cache-dir --root-user-action=ignore -r /opt/emperf/requirements.lock
RUN python3 -c "import pwd; pwd.getpwuid(10001)" 2>/dev/null \
    || useradd --uid 10001 --user-group --home-dir /tmp --no-create-home runner
ENV PYTHONPATH=/opt/emperf HOME=/tmp PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1

FROM packages AS sources
COPY harness/emperf /opt/emperf/emperf
RUN python3 -m compileall -q /opt/emperf/emperf

# What a submission's container runs of this package, and nothing that scores it.
FROM sources AS trainer
RUN python3 -c "from pathlib import Path; from emperf.runtimes.trainer import copy_trainer; \
      copy_trainer(Path('/opt/trainer'))" \
    && python3 -m compileall -q /opt/trainer

FROM packages AS submission
COPY --from=trainer /opt/trainer /opt/emperf
RUN python3 -c "import torch, transformers, peft, deepspeed, safetensors, emperf.training.loop"
USER 10001:10001
ENTRYPOINT ["python3", "-m", "emperf.training", "--in", "/in", "--out", "/out", "--submission", "/submission"]

# Start it with the engine's socket and a volume for models and runs:
#   docker run -v /var/run/docker.sock:/var/run/docker.sock -v emperf:/data emperf/harness:<version> prepare
FROM sources AS harness
RUN python3 -c "open('/usr/local/bin/emperf', 'w').write('#!/usr/local/bin/python3\nfrom emperf.cli import main\nmain()\n'); \
      import os; os.chmod('/usr/local/bin/emperf', 0o755)"
COPY benchmark /emperf/benchmark
COPY spec /emperf/spec
COPY reference_impls /emperf/reference_impls
ENV EMPERF_ROOT=/emperf EMPERF_HOME=/data/home EMPERF_STORE=/data/runs
WORKDIR /emperf
ENTRYPOINT ["emperf"]
