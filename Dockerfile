# The command line of comet-rec, with its service, for CPUs:
#     docker run IMAGE serve /runs/shop --host 0.0.0.0
# `make image` builds it. PIP_ARGS goes to pip, as in Makefile: it names the index of torch's CPU
# build. Without it, torch brings CUDA, which is larger by gigabytes.

FROM python:3.11-slim-bookworm AS build
ARG PIP_ARGS=""
WORKDIR /src
RUN python -m venv --without-pip /opt/comet-rec
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# The headers and tests of torch are 145 MB that nothing here reads. PIP_ARGS is split into words on
# purpose.
# hadolint ignore=SC2086
RUN python -m pip --python /opt/comet-rec/bin/python install --no-cache-dir $PIP_ARGS \
    -c constraints.txt ".[serve]" \
    && rm -r /opt/comet-rec/lib/python3*/site-packages/torch/include \
             /opt/comet-rec/lib/python3*/site-packages/torch/test

# The same base: the environment's Python is a link to that of the image.
FROM python:3.11-slim-bookworm
# Numbers, so that an orchestrator can see that the user is not root.
RUN install --directory --owner=10001 --group=10001 /runs
COPY --from=build /opt/comet-rec /opt/comet-rec
# `comet-rec data fetch` keeps its files in COMET_REC_DATA.
ENV PATH=/opt/comet-rec/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    COMET_REC_DATA=/runs/data
USER 10001:10001
WORKDIR /runs
VOLUME /runs
EXPOSE 8000
STOPSIGNAL SIGTERM
# http.client, unlike urllib, does not ask a proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "import http.client; probe = http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); probe.request('GET', '/readyz'); raise SystemExit(probe.getresponse().status != 200)"]
ENTRYPOINT ["comet-rec"]
CMD ["--help"]
