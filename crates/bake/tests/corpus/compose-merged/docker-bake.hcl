
target "app" { 
  platforms = ["linux/arm64"]
  args = { H = "hcl" }
}
group "all" { targets = ["app", "extra"] }
