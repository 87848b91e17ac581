
target "none" {}
target "image" { output = ["type=image,name=x"] }
target "docker" { output = ["type=docker"] }
target "local" { output = ["type=local,dest=o"] }
group "default" { targets = ["none", "image", "docker", "local"] }
