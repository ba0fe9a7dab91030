{ pkgs, ... }:
{
  home.packages = [ pkgs.git pkgs.neovim ];

  home.file.".config/git/config".text = ''
    [user]
      name = Anna
      email = anna@anna.example
  '';
  home.file.".config/nvim".source = ./nvim;
  home.file.".local/bin".source = ./bin;
}
