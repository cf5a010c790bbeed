ARG NODE_VERSION=26.12.1

FROM node:${NODE_VERSION}-bookworm-slim AS build
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json ./
COPY src src
COPY test/support/build.ts test/support/build.ts
COPY deploy/openssl.cnf deploy/openssl.cnf
RUN node test/support/build.ts
# The image holds Node, the libraries that it loads, the bundle, and nothing else: no shell, no package manager.
# In POSIX shell, each step checked: Podman and Buildah heed no SHELL, nor do older ones know here-documents.
RUN mkdir -p /image/etc /image/opt/scute /image/run/scute /image/tmp \
  && ldd /usr/local/bin/node >/tmp/node.ldd \
  && libraries=$(grep -o '/[^ ]*' /tmp/node.ldd) \
  && cp --dereference --parents /usr/local/bin/node $libraries /image \
  && cp dist/scute.js dist/scute-dev.cjs dist/scute-policy.cjs dist/scute-dashboard.cjs dist/scute-pkcs12.cjs dist/scute-pretty.cjs package.json deploy/openssl.cnf /image/opt/scute \
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
COPY LICENSE /opt/scute/LICENSE
# Numbers, because Kubernetes' runAsNonRoot does not look names up.
USER 65532:65532
STOPSIGNAL SIGTERM
# Without --disable-sigusr1, Node opens its inspector on SIGUSR1. With --use-openssl-ca, it does not read the public web's authorities at each start.
ENTRYPOINT ["/usr/local/bin/node", "--disable-sigusr1", "--use-openssl-ca", "--openssl-config=/opt/scute/openssl.cnf", "/opt/scute/scute.js"]
CMD ["run", "-c", "/etc/scute/scute.yaml"]
