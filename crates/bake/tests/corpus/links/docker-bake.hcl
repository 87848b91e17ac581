
target "default" {
  contexts = { base = "target:base", img = "docker-image://alpine:latest", src = "./src" }
  platforms = ["linux/amd64", "linux/arm64"]
}
target "base" {
  platforms = ["linux/amd64", "linux/arm64", "linux/386"]
  contexts = { deep = "target:deep" }
  output = ["type=docker"]
}
target "deep" {
  network = "host"
}
