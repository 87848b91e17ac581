
target "_common" {
  args = { A = "1", B = "2" }
  labels = { l = "x" }
  tags = ["common"]
  platforms = ["linux/amd64"]
  cache-from = ["type=registry,ref=one"]
  cache-to = ["type=inline"]
  secret = ["id=a,src=x"]
  output = ["type=docker"]
  annotations = ["a=b"]
  attest = ["type=sbom"]
  no-cache-filter = ["s1"]
  extra-hosts = {h = "1.1.1.1"}
  contexts = { src = "./src", gone = "x" }
}
target "_second" {
  args = { B = "3", C = null }
  cache-from = ["type=registry,ref=two", "type=registry,ref=one"]
  secret = ["id=a,src=y", "id=b,src=z"]
  attest = ["type=sbom,disabled=true", "type=provenance"]
  inherits = ["_common"]
}
target "app" {
  inherits = ["_common", "_second"]
  args = { D = "4", A = null }
  contexts = { gone = "" , more = "docker-image://alpine" }
  tags = []
  platforms = []
  no-cache-filter = ["s2"]
  context = ""
}
target "other" {
  inherits = ["_second", "_common"]
  dockerfile = ""
}
group "default" { targets = ["app", "other"] }
