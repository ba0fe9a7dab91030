// Asks the server in GITHUB_API_URL with GitHub's own client, whose module CLIENT names, and prints what it sees.
import { createRequire } from "node:module";

const { getOctokit } = createRequire(import.meta.url)(process.env.CLIENT);
const [owner, repo] = process.env.GITHUB_REPOSITORY.split("/");
const headers = { "X-GitHub-Api-Version": "2022-11-28" };
const octokit = getOctokit(process.env.NIX_MATRIX_GITHUB_TOKEN, { baseUrl: process.env.GITHUB_API_URL });
const { rest } = octokit;
const here = { owner, repo, headers };
const status = (promise) => promise.then((answer) => answer.status, (error) => error.status);

const caches = await octokit.paginate(rest.actions.getActionsCacheList, { ...here, key: "a-", per_page: 100 });
const oldest = await rest.actions.getActionsCacheList({ ...here, sort: "created_at", direction: "asc", per_page: 1 });
const created = await rest.issues.createComment({ ...here, issue_number: 7, body: "created" });
const comment_id = created.data.id;
const updated = await rest.issues.updateComment({ ...here, comment_id, body: "updated" });
const comments = await octokit.paginate(rest.issues.listComments, { ...here, issue_number: 7 });
const head_sha = "0".repeat(40);
const output = { title: "title", summary: "summary" };
const check = await rest.checks.create({ ...here, name: "nix: a", head_sha, external_id: "a", status: "in_progress" });
const check_run_id = check.data.id;
await rest.checks.create({ ...here, name: "nix: a", head_sha, external_id: "b", conclusion: "skipped", output });
const ended = await rest.checks.update({ ...here, check_run_id, conclusion: "failure", output });
const newest = await octokit.paginate(rest.checks.listForRef, { ...here, ref: head_sha });
const all = await octokit.paginate(rest.checks.listForRef, { ...here, ref: head_sha, filter: "all", per_page: 1 });
const checked = (body) => status(rest.checks.create({ ...here, name: "nix: c", head_sha, ...body }));
const annotation = { path: "a", start_line: 1, end_line: 1, annotation_level: "failure", message: "m" };
const { data: repository } = await rest.repos.get(here);

console.log(JSON.stringify({
  caches: caches.length,
  oldest: oldest.data.actions_caches[0].key,
  total: oldest.data.total_count,
  created: created.status,
  updated: updated.data.body,
  comments: comments.map((comment) => `${comment.user.login} ${comment.body}`),
  checks: [check, ended].map((answer) => `${answer.status} ${answer.data.status} ${answer.data.conclusion}`),
  newest: newest.map((run) => `${run.external_id} ${run.conclusion} ${run.output.title} ${run.app.slug}`),
  all: all.map((run) => run.external_id),
  refused: [
    await checked({ name: "" }),
    await checked({ head_sha: "main" }),
    await checked({ status: "completed" }),
    await checked({ conclusion: "stale" }),
    await checked({ conclusion: "success", output: { title: "no summary" } }),
    await checked({ conclusion: "success", output: { ...output, summary: "ä".repeat(33000) } }),
    await checked({ conclusion: "success", output: { ...output, annotations: Array(51).fill(annotation) } }),
    await checked({ conclusion: "success", output: { ...output, annotations: [{ ...annotation, path: undefined }] } }),
    await checked({ conclusion: "success", details_url: "javascript:alert(1)" }),
    await status(rest.checks.update({ ...here, check_run_id: 9999, conclusion: "success" })),
  ],
  annotated: await checked({ conclusion: "success", output: { ...output, annotations: Array(50).fill(annotation) } }),
  branch: repository.default_branch,
  user: await status(rest.users.getAuthenticated({ headers })),
  removed: await status(rest.actions.deleteActionsCacheById({ ...here, cache_id: caches[0].id })),
  again: await status(rest.actions.deleteActionsCacheById({ ...here, cache_id: caches[0].id })),
  unknown: await status(rest.issues.listComments({ ...here, issue_number: 8 })),
  unversioned: await status(rest.repos.get({ owner, repo })),
}));
