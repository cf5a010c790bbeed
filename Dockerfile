# Pin the base by its digest, since whoever owns the tag can move it: --build-arg NODE_IMAGE=node:26.12.1-bookworm-slim@sha256:…, which
# skopeo inspect --format '{{.Digest}}' docker://docker.io/library/node:26.12.1-bookworm-slim
# prints. npm run image has no base image: all that is in it is locked by digests.
ARG NODE_IMAGE=node:26.12.1-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json LICENSE CHANGELOG.md ./
COPY src src
COPY configs configs
COPY build/package.ts build/licences.ts build/
COPY build/npm build/npm
COPY test/support/build.ts test/support/build.ts
COPY deploy/openssl.cnf deploy/openssl.cnf
RUN node build/package.ts
# The image holds Node, the libraries that it loads, Scute as the npm package has it, the licences of all that, and nothing else: no shell, no
# package manager. In POSIX shell, each step checked: Podman and Buildah heed no SHELL, nor do older ones know here-documents. The names of
# libraries say which Debian packages they are of; one of another package ends the build.
RUN mkdir -p /image/etc /image/opt/scute /image/run/scute /image/tmp \
  && ldd /usr/local/bin/node >/tmp/node.ldd \
  && libraries=$(grep -o '/[^ ]*' /tmp/node.ldd) \
  && ! printf '%s\n' $libraries | grep -vE '/(lib(c|m|dl|pthread|gcc_s|stdc\+\+|atomic)\.so\.[0-9]+|ld-linux-[^/]+)$' \
  && cp --dereference --parents /usr/local/bin/node /usr/local/LICENSE $libraries /image \
  && for package in libc6 libgcc-s1 libstdc++6 $(case "$libraries" in *libatomic*) echo libatomic1 ;; esac); do \
    cp --dereference --parents /usr/share/doc/$package/copyright /image || exit 1; \
  done \
  && rm dist/scute-start.cjs \
  && cp dist/scute.js dist/scute-*.cjs dist/package.json dist/openssl.cnf dist/LICENSE dist/LICENCES.txt /image/opt/scute \
  && echo 'hosts: files dns' >/image/etc/nsswitch.conf \
  && echo 'scute:x:65532:65532::/:/' >/image/etc/passwd \
  && echo 'scute:x:65532:' >/image/etc/group \
  && chown 65532:65532 /image/run/scute \
  && chmod 0750 /image/run/scute \
  && chmod 1777 /image/tmp

FROM scratch
LABEL org.opencontainers.image.title="scute" \
  org.opencontainers.image.description="An mTLS sidecar proxy for SPIFFE" \
  org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
# Numbers, because Kubernetes' runAsNonRoot does not look names up.
USER 65532:65532
STOPSIGNAL SIGTERM
# Without --disable-sigusr1, Node opens its inspector on SIGUSR1. With --use-openssl-ca, it does not read the public web's authorities at each start.
# The heap is limited to half of the container's memory limit, as in build/image/Containerfile.
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "--use-openssl-ca", "--max-old-space-size-percentage=50", "--openssl-config=/opt/scute/openssl.cnf", "/opt/scute/scute.js"]
CMD ["run", "-c", "/etc/scute/scute.yaml"]
