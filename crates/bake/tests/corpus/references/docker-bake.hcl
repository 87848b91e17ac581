
target "base" {
  context = "./dir"
  args = { A = "a", B = null }
  tags = ["t1", "t2"]
  platforms = ["linux/arm64"]
  output = ["type=image,name=x"]
}
target "default" {
  context = target.base.context
  args = { X = target.base.args.A, T = target.base.tags[1], O = target.base.output[0].name, own = target.default.tags[0] }
  tags = [for t in target.base.tags : "${t}-new"]
  platforms = target.base.platforms
  labels = { all = join(" ", group.all.targets), count = length(target.base.tags) }
}
group "all" { targets = ["default", "base"] }
