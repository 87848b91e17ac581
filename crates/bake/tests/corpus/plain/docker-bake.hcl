
group "default" {
  targets = ["web", "db"]
}
target "web" {
  description = "the front"
  context    = "./web/../web"
  dockerfile = "Dockerfile.web"
  args = { VERSION = "1.2", COUNT = 3, RATIO = 1.5, DEBUG = true, NONE = null }
  labels = { "org.opencontainers.image.title" = "web <&>" , empty = ""}
  tags = ["example.com/web:1", "example.com/web:latest", "example.com/web:1", ""]
  platforms = ["linux/amd64", "linux/arm64", "linux/amd64"]
  target = "final"
  pull = true
  no-cache = false
  network = "host"
  no-cache-filter = ["a", "b", "a"]
  shm-size = "128m"
  ulimits = ["nofile=1024:2048", "nproc=10"]
  call = "check"
  extra-hosts = { "my.host" = "8.8.8.8", v6 = "::1" }
  annotations = ["index:a=b", "c=${"$"}{d}"]
  entitlements = ["security.insecure"]
}
target "db" {
  dockerfile-inline = <<EOT
FROM alpine
RUN echo $${HOME} %%{x}
EOT
}
