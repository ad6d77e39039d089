# The service with the shipped model: the runtime, no PyTorch.
#
#   docker build -t lentigo .
#   docker run --rm -p 127.0.0.1:8000:8000 lentigo
#   docker run --rm -p 8000:8000 -e LENTIGO_TOKEN -v "$PWD/runs:/runs:ro" lentigo /runs/my-run --allow-host lesions.example
#
# LENTIGO_TOKEN is taken from the environment at the start and is in no layer. HTTPS is a proxy's work.

# The runtime that runs the model in the browser; the script needs npm and nothing that pip would bring.
FROM node:20-bookworm AS web
WORKDIR /source
COPY tools/vendor_web.py tools/
COPY src src
RUN PYTHONPATH=src python3 tools/vendor_web.py

FROM python:3.11-slim-bookworm AS build
# More formats: --build-arg EXTRAS=serve,dicom,heic
ARG EXTRAS=serve
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY --from=web /source/src src
RUN python -m venv /opt/lentigo \
 && /opt/lentigo/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent lentigo
COPY --from=build /opt/lentigo /opt/lentigo
ENV PATH=/opt/lentigo/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/api/health', timeout=4)"]
# What follows the image's name in `docker run` is added: a model, --runs, --allow-host, --threads.
ENTRYPOINT ["lentigo", "serve", "--host", "0.0.0.0", "--port", "8000"]
