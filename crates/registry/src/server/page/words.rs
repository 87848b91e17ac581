// SPDX-License-Identifier: Apache-2.0
//! Everything that the page says, in English and in Chinese.

use super::language::Language;

/// The words of one language; those with a number in them are functions.
pub(super) struct Words {
    language: Language,
    pub(super) skip: &'static str,
    pub(super) search: &'static str,
    pub(super) settings: &'static str,
    pub(super) user: &'static str,
    pub(super) sign_in: &'static str,
    pub(super) to_dark: &'static str,
    pub(super) to_light: &'static str,
    pub(super) footer: &'static str,
    pub(super) copied: &'static str,
    pub(super) copy_command: &'static str,
    pub(super) copy_digest: &'static str,
    pub(super) pages: &'static str,
    pub(super) previous: &'static str,
    pub(super) next: &'static str,
    pub(super) where_you_are: &'static str,
    pub(super) repositories: &'static str,
    pub(super) all_repositories: &'static str,
    pub(super) no_repositories: &'static str,
    pub(super) search_results: &'static str,
    pub(super) nothing_found: &'static str,
    pub(super) search_cut: &'static str,
    pub(super) tag: &'static str,
    pub(super) tags: &'static str,
    pub(super) no_tags: &'static str,
    pub(super) filter_tags: &'static str,
    pub(super) show: &'static str,
    pub(super) tags_cut: &'static str,
    pub(super) matrix: &'static str,
    pub(super) matrix_note: &'static str,
    pub(super) more: &'static str,
    pub(super) away: &'static str,
    pub(super) away_of_copy: &'static str,
    pub(super) digest: &'static str,
    pub(super) index_digest: &'static str,
    pub(super) manifest_digest: &'static str,
    pub(super) config_digest: &'static str,
    pub(super) kind: &'static str,
    pub(super) index_kind: &'static str,
    pub(super) image_kind: &'static str,
    pub(super) artifact_kind: &'static str,
    pub(super) size: &'static str,
    pub(super) subject: &'static str,
    pub(super) created: &'static str,
    pub(super) platform: &'static str,
    pub(super) platforms: &'static str,
    pub(super) no_platform: &'static str,
    pub(super) layer: &'static str,
    pub(super) layers: &'static str,
    pub(super) files: &'static str,
    pub(super) making: &'static str,
    pub(super) instruction: &'static str,
    pub(super) state: &'static str,
    pub(super) config: &'static str,
    pub(super) labels: &'static str,
    pub(super) annotations: &'static str,
    pub(super) attestations: &'static str,
    pub(super) referrers: &'static str,
    pub(super) about_the_tag: &'static str,
    pub(super) provenance: &'static str,
    pub(super) sbom: &'static str,
    pub(super) attestation: &'static str,
    pub(super) signature: &'static str,
    pub(super) document: &'static str,
    pub(super) whole: &'static str,
    pub(super) whole_sentence: &'static str,
    pub(super) whole_blobs_sentence: &'static str,
    pub(super) partial: &'static str,
    pub(super) not_here: &'static str,
    pub(super) incomplete: &'static str,
    pub(super) mismatch: &'static str,
    pub(super) damaged: &'static str,
    pub(super) damaged_sentence: &'static str,
    pub(super) unseen: &'static str,
    pub(super) unseen_sentence: &'static str,
    pub(super) absent_sentence: &'static str,
    pub(super) compare: &'static str,
    pub(super) compare_tags: &'static str,
    pub(super) compare_platforms: &'static str,
    pub(super) comparison: &'static str,
    pub(super) one: &'static str,
    pub(super) other: &'static str,
    pub(super) identical: &'static str,
    pub(super) changed: &'static str,
    pub(super) shared: &'static str,
    pub(super) only_left: &'static str,
    pub(super) only_right: &'static str,
    pub(super) no_difference: &'static str,
    pub(super) field: &'static str,
    pub(super) where_it_is: &'static str,
    pub(super) nothing_to_compare: &'static str,
    pub(super) not_found: &'static str,
    pub(super) not_found_sentence: &'static str,
    pub(super) unauthorized: &'static str,
    pub(super) unauthorized_sentence: &'static str,
    pub(super) denied: &'static str,
    pub(super) denied_sentence: &'static str,
    pub(super) too_many: &'static str,
    pub(super) too_many_sentence: &'static str,
    pub(super) bad_request: &'static str,
    pub(super) bad_request_sentence: &'static str,
    pub(super) failed: &'static str,
    pub(super) failed_sentence: &'static str,
}

impl Words {
    /// Says how many there are, and of what.
    fn number(&self, count: usize, one: &str, many: &str, chinese: &str) -> String {
        match self.language {
            Language::English if count == 1 => format!("1 {one}"),
            Language::English => format!("{count} {many}"),
            Language::Chinese => format!("{count} {chinese}"),
        }
    }

    pub(super) fn repository_count(&self, count: usize) -> String {
        self.number(count, "repository", "repositories", "个仓库")
    }

    pub(super) fn tag_count(&self, count: usize) -> String {
        self.number(count, "tag", "tags", "个标签")
    }

    pub(super) fn result_count(&self, count: usize) -> String {
        self.number(count, "result", "results", "条结果")
    }

    pub(super) fn layer_count(&self, count: usize) -> String {
        self.number(count, "layer", "layers", "层")
    }

    /// Says that a list was cut.
    pub(super) fn omitted(&self, count: &usize) -> String {
        match self.language {
            Language::English => format!("{count} more not shown."),
            Language::Chinese => format!("另有 {count} 项未显示。"),
        }
    }

    /// Says which part of a list is shown.
    pub(super) fn range(&self, first: usize, last: usize, all: usize) -> String {
        match self.language {
            Language::English => format!("{first}–{last} of {all}"),
            Language::Chinese => format!("第 {first}–{last} 项，共 {all} 项"),
        }
    }

    /// Says that a repository is a copy.
    pub(super) fn copy_of(&self, name: &str, upstreams: &str) -> String {
        match self.language {
            Language::English => format!("Copy of {name}, served from here; upstream: {upstreams}"),
            Language::Chinese => format!("{name} 的缓存副本，由本仓库提供；上游：{upstreams}"),
        }
    }

    /// Says that an upstream did not answer lately.
    pub(super) fn resting(&self, upstream: &str) -> String {
        match self.language {
            Language::English => format!("{upstream} (not answering)"),
            Language::Chinese => format!("{upstream}（暂无响应）"),
        }
    }

    pub(super) fn partial_sentence(&self, here: usize, all: usize) -> String {
        match self.language {
            Language::English => format!(
                "{here} of {all} platforms are here. The index is whole; what is missing can't be pulled from here."
            ),
            Language::Chinese => {
                format!("{all} 个平台中有 {here} 个在此。镜像索引完整，缺少的平台无法从这里拉取。")
            }
        }
    }

    pub(super) fn partial_copy_sentence(&self, here: usize, all: usize) -> String {
        match self.language {
            Language::English => {
                format!(
                    "{here} of {all} platforms are here; the others are fetched when somebody asks for them."
                )
            }
            Language::Chinese => format!("{all} 个平台中有 {here} 个已缓存，其余平台在首次拉取时获取。"),
        }
    }

    pub(super) fn others_away(&self, count: usize) -> String {
        match self.language {
            Language::English if count == 1 => {
                "Every platform is here; 1 other document that the index names is not.".to_owned()
            }
            Language::English => {
                format!("Every platform is here; {count} other documents that the index names are not.")
            }
            Language::Chinese => format!("所有平台均在此；镜像索引所引用的另外 {count} 个文档不在此处。"),
        }
    }

    pub(super) fn missing_sentence(&self, count: usize) -> String {
        match self.language {
            Language::English if count == 1 => "1 blob that the manifest names is not here.".to_owned(),
            Language::English => format!("{count} blobs that the manifest names are not here."),
            Language::Chinese => format!("清单所引用的 {count} 个数据块不在此处。"),
        }
    }

    pub(super) fn mismatch_sentence(&self, declared: &str, says: &str) -> String {
        match self.language {
            Language::English => format!("The index says {declared}; the image's config says {says}."),
            Language::Chinese => format!("镜像索引声明为 {declared}，镜像配置却为 {says}。"),
        }
    }

    pub(super) fn layers_sentence(
        &self,
        shared: (usize, &str),
        left: (usize, &str),
        right: (usize, &str),
    ) -> String {
        match self.language {
            Language::English => format!(
                "{} shared ({}); {} only in the first ({}), {} only in the second ({}).",
                shared.0, shared.1, left.0, left.1, right.0, right.1
            ),
            Language::Chinese => format!(
                "共享 {} 层（{}）；仅前者有 {} 层（{}），仅后者有 {} 层（{}）。",
                shared.0, shared.1, left.0, left.1, right.0, right.1
            ),
        }
    }
}

pub(super) const ENGLISH: Words = Words {
    language: Language::English,
    skip: "Skip to the content",
    search: "Search repositories and tags",
    settings: "Settings",
    user: "Signed in",
    sign_in: "Sign in",
    to_dark: "Dark colours",
    to_light: "Light colours",
    footer: "polyarch registry",
    copied: "Copied",
    copy_command: "Copy the command",
    copy_digest: "Copy the digest",
    pages: "Pages",
    previous: "Previous",
    next: "Next",
    where_you_are: "Where you are",
    repositories: "Repositories",
    all_repositories: "All repositories",
    no_repositories: "Nothing is here yet. The first push makes a repository:",
    search_results: "Search",
    nothing_found: "No repository and no tag has that in its name.",
    search_cut: "There is more than was searched; a longer word finds less.",
    tag: "Tag",
    tags: "Tags",
    no_tags: "There are no tags here.",
    filter_tags: "Tags with",
    show: "Show",
    tags_cut: "There are more tags than this page can sort; the filter finds the others.",
    matrix: "Tags and their platforms",
    matrix_note: "Each cell is the digest of that platform's manifest.",
    more: "More",
    away: "A dashed one is named by the index and not here.",
    away_of_copy: "A dashed one has not been fetched from upstream yet.",
    digest: "Digest",
    index_digest: "Index digest",
    manifest_digest: "Manifest digest",
    config_digest: "Config digest",
    kind: "Kind",
    index_kind: "Image index",
    image_kind: "Image for one platform",
    artifact_kind: "Artifact",
    size: "Size",
    subject: "About",
    created: "Created",
    platform: "Platform",
    platforms: "Platforms",
    no_platform: "no platform",
    layer: "Layer",
    layers: "Layers",
    files: "Content",
    making: "Layers and instructions",
    instruction: "Instruction",
    state: "State",
    config: "Configuration",
    labels: "Labels",
    annotations: "Annotations",
    attestations: "Attestations and referrers",
    referrers: "Attestations, signatures and other referrers",
    about_the_tag: "Along with it",
    provenance: "Provenance",
    sbom: "SBOM",
    attestation: "Attestation",
    signature: "Signature",
    document: "Document",
    whole: "Complete",
    whole_sentence: "Every digest that it names is here, and each config says the platform that it stands for.",
    whole_blobs_sentence: "Every blob that the manifest names is here.",
    partial: "Partial",
    not_here: "Not here",
    incomplete: "Incomplete",
    mismatch: "Wrong platform",
    damaged: "Damaged",
    damaged_sentence: "A document of it can't be read; `polyarch registry scrub` tells more.",
    unseen: "Not checked",
    unseen_sentence: "It is too large to be looked at as a whole.",
    absent_sentence: "This manifest is named by the index, and not here.",
    compare: "Compare",
    compare_tags: "Compare two tags",
    compare_platforms: "Compare two platforms",
    comparison: "Comparison",
    one: "First",
    other: "Second",
    identical: "Identical",
    changed: "Different",
    shared: "Shared",
    only_left: "First only",
    only_right: "Second only",
    no_difference: "The configurations are the same.",
    field: "Field",
    where_it_is: "In",
    nothing_to_compare: "They have no platform in common that is here.",
    not_found: "Not found",
    not_found_sentence: "There is nothing at this address.",
    unauthorized: "Please sign in",
    unauthorized_sentence: "This needs a user's name and password.",
    denied: "Not allowed",
    denied_sentence: "This registry is for its own machine; call it localhost.",
    too_many: "Too many requests",
    too_many_sentence: "This address sends more requests than the registry allows. Wait a moment.",
    bad_request: "Not understood",
    bad_request_sentence: "The address has parameters that mean nothing here.",
    failed: "The registry failed",
    failed_sentence: "Its log says why.",
};

pub(super) const CHINESE: Words = Words {
    language: Language::Chinese,
    skip: "跳到正文",
    search: "搜索仓库和标签",
    settings: "设置",
    user: "已登录",
    sign_in: "登录",
    to_dark: "深色外观",
    to_light: "浅色外观",
    footer: "polyarch 镜像仓库",
    copied: "已复制",
    copy_command: "复制命令",
    copy_digest: "复制摘要",
    pages: "分页",
    previous: "上一页",
    next: "下一页",
    where_you_are: "当前位置",
    repositories: "仓库",
    all_repositories: "全部仓库",
    no_repositories: "这里还没有镜像。首次推送时会自动创建仓库：",
    search_results: "搜索",
    nothing_found: "没有名称匹配的仓库或标签。",
    search_cut: "内容过多，未能全部搜索，请输入更具体的关键词。",
    tag: "标签",
    tags: "标签",
    no_tags: "这里没有标签。",
    filter_tags: "筛选标签",
    show: "筛选",
    tags_cut: "标签过多，无法全部排序，请用筛选查找其余标签。",
    matrix: "标签与平台",
    matrix_note: "每格为该平台清单的摘要。",
    more: "其他",
    away: "虚线表示镜像索引引用了该清单，但它不在此处。",
    away_of_copy: "虚线表示尚未从上游拉取。",
    digest: "摘要",
    index_digest: "索引摘要",
    manifest_digest: "清单摘要",
    config_digest: "配置摘要",
    kind: "类型",
    index_kind: "镜像索引",
    image_kind: "单平台镜像",
    artifact_kind: "制品",
    size: "大小",
    subject: "关联对象",
    created: "创建时间",
    platform: "平台",
    platforms: "平台",
    no_platform: "未声明平台",
    layer: "层",
    layers: "层",
    files: "内容",
    making: "层与构建指令",
    instruction: "构建指令",
    state: "状态",
    config: "镜像配置",
    labels: "标记（Label）",
    annotations: "注解",
    attestations: "证明与引用者",
    referrers: "证明、签名与其他引用者",
    about_the_tag: "附带信息",
    provenance: "来源证明",
    sbom: "软件物料清单（SBOM）",
    attestation: "证明",
    signature: "签名",
    document: "文档",
    whole: "完整",
    whole_sentence: "所引用的摘要全部在此，且各镜像配置与其声明的平台一致。",
    whole_blobs_sentence: "清单所引用的数据块全部在此。",
    partial: "部分",
    not_here: "不在此处",
    incomplete: "不完整",
    mismatch: "平台不符",
    damaged: "已损坏",
    damaged_sentence: "其中有文档无法读取，可用 `polyarch registry scrub` 查看详情。",
    unseen: "未检查",
    unseen_sentence: "内容过大，未能全部检查。",
    absent_sentence: "镜像索引引用了该清单，但它不在此处。",
    compare: "比较",
    compare_tags: "比较两个标签",
    compare_platforms: "比较两个平台",
    comparison: "比较",
    one: "前者",
    other: "后者",
    identical: "完全相同",
    changed: "不同",
    shared: "共享",
    only_left: "仅前者",
    only_right: "仅后者",
    no_difference: "两者的镜像配置相同。",
    field: "字段",
    where_it_is: "所在",
    nothing_to_compare: "两者没有同时在此的相同平台。",
    not_found: "未找到",
    not_found_sentence: "此地址没有内容。",
    unauthorized: "请先登录",
    unauthorized_sentence: "访问此内容需要用户名和密码。",
    denied: "不允许访问",
    denied_sentence: "此镜像仓库仅供本机使用，请用 localhost 访问。",
    too_many: "请求过多",
    too_many_sentence: "该地址的请求超出了限制，请稍后再试。",
    bad_request: "无法理解的请求",
    bad_request_sentence: "地址中的参数无效。",
    failed: "服务器出错",
    failed_sentence: "原因见服务器日志。",
};
