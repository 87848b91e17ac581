// SPDX-License-Identifier: Apache-2.0
// Fills a registry with images over its API: of several platforms, with attestations, a referrer, and a sparse one.
import { createHash } from "node:crypto";
import http from "node:http";

const types = {
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar+gzip",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  index: "application/vnd.oci.image.index.v1+json",
  statement: "application/vnd.in-toto+json",
};

const digestOf = (bytes) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

// Sends one request; the answer's status, headers and body.
export const send = (base, method, path, body, headers = {}) =>
  new Promise((resolve, reject) => {
    const request = http.request(new URL(path, base), { method, headers }, (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("end", () =>
        resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(pieces) }));
    });
    request.on("error", reject);
    request.end(body);
  });

const expect = (answer, status, what) => {
  if (answer.status !== status) throw new Error(`${what}: ${answer.status} ${answer.body}`);
};

const blob = async (base, repository, mediaType, bytes) => {
  const digest = digestOf(bytes);
  const path = `/v2/${repository}/blobs/uploads/?digest=${digest}`;
  expect(await send(base, "POST", path, bytes, { "Content-Type": "application/octet-stream" }), 201, path);
  return { mediaType, digest, size: bytes.length };
};

const document = async (base, repository, name, value) => {
  const bytes = Buffer.from(JSON.stringify(value));
  const digest = digestOf(bytes);
  const path = `/v2/${repository}/manifests/${name ?? digest}`;
  expect(await send(base, "PUT", path, bytes, { "Content-Type": value.mediaType }), 201, path);
  return { mediaType: value.mediaType, digest, size: bytes.length };
};

const platformOf = (text) => {
  const [os, architecture, variant] = text.split("/");
  return variant ? { os, architecture, variant } : { os, architecture };
};

// Bytes that are the same each time and not worth compressing.
const noise = (seed, length) => {
  const pieces = [];
  for (let number = 0; pieces.length * 32 < length; number++) {
    pieces.push(createHash("sha256").update(`${seed} ${number}`).digest());
  }
  return Buffer.concat(pieces).subarray(0, length);
};

const image = async (base, repository, platform, version, extra = {}) => {
  const layers = [];
  const steps = [
    [`# debian.sh --arch '${platform}' out/ 'bookworm'`, 310_000],
    ["ENV LANG=C.UTF-8", 0],
    [`RUN |1 VERSION=${version} /bin/sh -c apt-get update && apt-get install -y --no-install-recommends ca-certificates curl && rm -rf /var/lib/apt/lists/* # buildkit`, 120_000],
    ["WORKDIR /srv/app", 0],
    ["COPY /out/server /usr/local/bin/server # buildkit", 48_000],
    ["COPY assets/ /srv/app/ # buildkit", 9_000],
    ["EXPOSE map[8080/tcp:{}]", 0],
    ["ENTRYPOINT [\"/usr/local/bin/server\"]", 0],
  ];
  for (const [number, [, size]] of steps.entries()) {
    // The last one is the same for all platforms.
    const seed = number === 5 ? `assets ${version}` : number < 3 ? `${number} ${platform}` : `${number} ${platform} ${version}`;
    if (size > 0) layers.push(await blob(base, repository, types.layer, noise(seed, size)));
  }
  const config = {
    ...platformOf(platform),
    created: "2026-11-20T09:30:00Z",
    config: {
      Entrypoint: ["/usr/local/bin/server"],
      Cmd: ["--listen", ":8080"],
      Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", `VERSION=${version}`],
      ExposedPorts: { "8080/tcp": {} },
      WorkingDir: "/srv/app",
      User: "10001:10001",
      Labels: { "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "Apache-2.0" },
    },
    history: steps.map(([created_by, size]) => (size > 0 ? { created_by } : { created_by, empty_layer: true })),
    rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.digest) },
  };
  const manifest = {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: await blob(base, repository, types.config, Buffer.from(JSON.stringify(config))),
    layers,
    ...extra,
  };
  return { ...(await document(base, repository, null, manifest)), platform: platformOf(platform) };
};

const attestation = async (base, repository, subject) => {
  const layers = [];
  for (const predicate of ["https://slsa.dev/provenance/v1", "https://spdx.dev/Document"]) {
    const bytes = Buffer.from(JSON.stringify({ predicateType: predicate, subject: subject.digest }));
    const layer = await blob(base, repository, types.statement, bytes);
    layers.push({ ...layer, annotations: { "in-toto.io/predicate-type": predicate } });
  }
  const config = await blob(base, repository, types.config, Buffer.from("{}"));
  const manifest = { schemaVersion: 2, mediaType: types.manifest, config, layers };
  return {
    ...(await document(base, repository, null, manifest)),
    platform: { os: "unknown", architecture: "unknown" },
    annotations: {
      "vnd.docker.reference.type": "attestation-manifest",
      "vnd.docker.reference.digest": subject.digest,
    },
  };
};

const index = (base, repository, tag, manifests, annotations) =>
  document(base, repository, tag, { schemaVersion: 2, mediaType: types.index, manifests, annotations });

const multiPlatform = async (base, repository, tag, platforms) => {
  const images = [];
  for (const platform of platforms) images.push(await image(base, repository, platform, tag));
  const attestations = [];
  for (const one of images) attestations.push(await attestation(base, repository, one));
  const annotations = {
    "org.opencontainers.image.source": "https://source.example/team/app",
    "org.opencontainers.image.version": tag,
    "org.example.hostile": "javascript:alert(1)//<script>alert(1)</script>",
  };
  return { ...(await index(base, repository, tag, [...images, ...attestations], annotations)), images };
};

// Fills the registry; returns the tag that is looked at most.
export const seed = async (base) => {
  const six = ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/riscv64", "linux/ppc64le", "linux/s390x"];
  await multiPlatform(base, "team/app", "1.9.2", six.slice(0, 2));
  await multiPlatform(base, "team/app", "1.10.0", six.slice(0, 4));
  await multiPlatform(base, "team/app", "1.10.1", six);
  const app = await multiPlatform(base, "team/app", "2.0.0", six);
  await document(base, "team/app", "latest", JSON.parse((await send(base, "GET", "/v2/team/app/manifests/2.0.0")).body));
  const signature = await blob(base, "team/app", "application/vnd.dev.sigstore.bundle.v0.3+json", Buffer.from("{\"b\":1}"));
  const empty = await blob(base, "team/app", "application/vnd.oci.empty.v1+json", Buffer.from("{}"));
  await document(base, "team/app", null, {
    schemaVersion: 2,
    mediaType: types.manifest,
    artifactType: "application/vnd.dev.sigstore.bundle.v0.3+json",
    config: empty,
    layers: [signature],
    subject: { mediaType: app.mediaType, digest: app.digest, size: app.size },
    annotations: { "org.opencontainers.image.created": "2026-11-20T10:00:00Z" },
  });
  // Copied without most of its platforms.
  const absent = (text) => ({ mediaType: types.manifest, digest: digestOf(text), size: 500, platform: platformOf(text) });
  await index(base, "team/app", "edge", [...app.images.slice(0, 2), ...six.slice(2).map(absent)]);
  // An index that says what its config denies.
  await index(base, "team/app", "odd", [app.images[0], { ...app.images[1], platform: platformOf("linux/s390x") }]);
  await multiPlatform(base, "library/debian", "12", six);
  await multiPlatform(base, "library/debian", "13", six);
  await multiPlatform(base, "tools/compiler", "17", six.slice(0, 2));
  const single = await image(base, "one", "linux/amd64", "1");
  await document(base, "one", "1", JSON.parse((await send(base, "GET", `/v2/one/manifests/${single.digest}`)).body));
  return app;
};
