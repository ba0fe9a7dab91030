# A machine with a screen.
{ pkgs, ... }:
{
  environment.systemPackages = [ pkgs.firefox pkgs.sway ];
  environment.etc."sway/config".text = ''
    output * bg #2e3440 solid_color
    bindsym Mod4+Return exec foot
  '';
}
