target "default" {
 platforms = ["linux/amd64", "linux/arm64"]
 contexts = { x = "target:b" } 
}
target "b" { platforms = ["linux/amd64", "linux/386"] }
