vim.opt.number = true
require("keys")
