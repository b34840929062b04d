# The book with a kernel, in a container:
#   docker build --tag batch-normalization .
#   docker run --rm --init --publish 127.0.0.1:8888:8888 batch-normalization

# What a clone needs, without a copy of it: .devcontainer ends here.
FROM python:3.12-slim-trixie AS tools

# Debian keeps one version of a package a release, so a pin would soon name none.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends chromium g++ git make \
    && rm -rf /var/lib/apt/lists/*

# PyTorch for the CPU: of two equal versions pip takes the one with a suffix, +cpu. `make` uses it.
COPY requirements.lock /tmp/
RUN pip install --no-cache-dir --constraint /tmp/requirements.lock \
    --extra-index-url https://download.pytorch.org/whl/cpu torch
ENV TORCH=/usr/local/bin/python3

RUN useradd --create-home --uid 1000 --shell /bin/bash reader
USER 1000

FROM tools AS book

COPY --chown=reader . /home/reader/batch-normalization
WORKDIR /home/reader/batch-normalization
RUN make book

EXPOSE 8888
CMD [".venv/bin/python", "-m", "tools.live", "--no-browser", "--all-interfaces"]
