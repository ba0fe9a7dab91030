{ pkgs, ... }:
{
  home.packages = [ pkgs.firefox ];

  home.file.".config/sway/config".text = ''
    include /etc/sway/config
    bindsym Mod4+b exec ${pkgs.firefox}
  '';
}
