# One image a service, and one of the command. Each has a binary, the four libraries that it is linked to, and no shell:
#
#   docker build --target syncflow -t kiki/syncflow .
#
# Targets: syncvalue, syncflow, syncshield, billing, kiki. Needs BuildKit.

# Debian 12 with Rust and a C compiler.
ARG BUILDER=rust:1.95-slim-bookworm
# A Debian with the glibc that the binaries are to run with. Its libraries are all that is taken of it.
ARG RUNTIME=debian:bookworm-slim
# Where binaries come from: `built` compiles them here, `prebuilt` takes them and their SBOMs from dist/ (see .ci/dist).
ARG BINARIES=built

FROM ${BUILDER} AS rust
# The version of cargo-auditable, which writes into a binary what it was built from (`cargo audit bin` reads it); empty: without.
ARG AUDITABLE=0.7.7
WORKDIR /src
ENV CARGO_HOME=/cargo \
    CARGO_PROFILE_RELEASE_STRIP=symbols \
    KIKI_BUILD="${AUDITABLE:+auditable }build --release --locked --bins"
RUN --mount=type=cache,id=kiki-cargo,target=/cargo/registry,sharing=locked \
    [ -z "$AUDITABLE" ] || cargo install --quiet --locked --version "$AUDITABLE" cargo-auditable

# The manifests, and an empty program in place of each root of a crate: it changes when dependencies do, and only then are they
# compiled again, because layers are cached by content.
FROM rust AS manifests
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock ! -name lib.rs ! -name main.rs ! -name build.rs \
        ! -path './services/*/tests/*.rs' ! -path './services/*/benches/*.rs' -delete && \
    for file in $(find . -name '*.rs'); do echo 'fn main() {}' >"$file"; done && \
    find . -type d -empty -delete

FROM rust AS dependencies
COPY --from=manifests /src .
RUN --mount=type=cache,id=kiki-cargo,target=/cargo/registry,sharing=locked cargo $KIKI_BUILD

FROM dependencies AS built
COPY . .
# Cargo goes by time: what was copied is newer than what was built of the empty programs.
RUN --mount=type=cache,id=kiki-cargo,target=/cargo/registry,sharing=locked \
    find . -path ./target -prune -o -name '*.rs' -exec touch {} + && \
    cargo $KIKI_BUILD && .ci/dist target/release /out

FROM scratch AS prebuilt
COPY dist /out

FROM ${BINARIES} AS binaries

# What the binaries are linked to, under the paths that the loader looks at; fails where one is linked to what is not here.
FROM ${RUNTIME} AS libraries
COPY --from=binaries /out /out
RUN set -eu; mkdir -p /root-fs/etc /empty; \
    for binary in kiki syncvalue syncflow syncshield billing; do ldd "/out/$binary" >"/tmp/$binary"; done; \
    if grep 'not found' /tmp/*; then exit 1; fi; \
    grep -oh '/[^ ]*\.so[^ ]*' /tmp/kiki /tmp/syncvalue /tmp/syncflow /tmp/syncshield /tmp/billing | sort -u >/tmp/all; \
    while read -r library; do cp -L --parents "$library" /root-fs; done </tmp/all; \
    echo 'hosts: files dns' >/root-fs/etc/nsswitch.conf; \
    echo 'kiki:x:65532:65532::/data:/' >/root-fs/etc/passwd

FROM scratch AS common
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.vendor="KIKI" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=libraries /root-fs /

# SyncShield is another user than the rest, because the folder of its data has the key that signs the log.

FROM common AS syncvalue
LABEL org.opencontainers.image.title="syncvalue" \
      org.opencontainers.image.description="SyncValue: what is this customer worth?"
COPY --from=binaries /out/syncvalue.cdx.json /usr/share/sbom/
COPY --from=libraries --chown=65532:65532 /empty /data
COPY --from=binaries /out/syncvalue /bin/
ENV KIKI_VALUE_GRPC=0.0.0.0:50051 KIKI_VALUE_HTTP=0.0.0.0:9091 KIKI_VALUE_DATA=/data KIKI_VALUE_MODELS=/data/models
EXPOSE 50051 9091
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["/bin/syncvalue", "health"]
ENTRYPOINT ["/bin/syncvalue"]

FROM common AS syncflow
LABEL org.opencontainers.image.title="syncflow" \
      org.opencontainers.image.description="SyncFlow: what do we bid, where, and is that platform healthy?"
COPY --from=binaries /out/syncflow.cdx.json /usr/share/sbom/
COPY --from=binaries /out/syncflow /bin/
ENV KIKI_FLOW_GRPC=0.0.0.0:50052 KIKI_FLOW_HTTP=0.0.0.0:8080
EXPOSE 50052 8080
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["/bin/syncflow", "health"]
ENTRYPOINT ["/bin/syncflow"]

FROM common AS syncshield
LABEL org.opencontainers.image.title="syncshield" \
      org.opencontainers.image.description="SyncShield: may we spend this, and what was done, provably?"
COPY --from=binaries /out/syncshield.cdx.json /usr/share/sbom/
COPY --from=libraries --chown=65533:65533 /empty /data
COPY --from=binaries /out/syncshield /bin/
ENV KIKI_SHIELD_GRPC=0.0.0.0:50053 KIKI_SHIELD_HTTP=0.0.0.0:8081 KIKI_SHIELD_DATA=/data
EXPOSE 50053 8081
USER 65533:65533
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["/bin/syncshield", "health"]
ENTRYPOINT ["/bin/syncshield"]

FROM common AS billing
LABEL org.opencontainers.image.title="billing" \
      org.opencontainers.image.description="Billing: what does the client owe, and how can they check it themselves?"
COPY --from=binaries /out/billing.cdx.json /usr/share/sbom/
COPY --from=libraries --chown=65532:65532 /empty /data
COPY --from=binaries /out/billing /bin/
ENV KIKI_BILLING_GRPC=0.0.0.0:50054 KIKI_BILLING_HTTP=0.0.0.0:8082 KIKI_BILLING_DATA=/data
EXPOSE 50054 8082
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["/bin/billing", "health"]
ENTRYPOINT ["/bin/billing"]

FROM common AS kiki
LABEL org.opencontainers.image.title="kiki" \
      org.opencontainers.image.description="The command: replay, exchange, bench, policy, budget, invoice, audit"
COPY --from=binaries /out/kiki.cdx.json /usr/share/sbom/
COPY --from=libraries --chown=65532:65532 /empty /data
COPY --from=binaries /out/kiki /bin/
WORKDIR /data
USER 65532:65532
ENTRYPOINT ["/bin/kiki"]
