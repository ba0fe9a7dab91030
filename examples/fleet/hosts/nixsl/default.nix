{ ... }:
{
  networking.hostName = "nixsl";

  boot.initrd.availableKernelModules = [ "nvme" "xhci_pci" ];

  services.openssh.settings.ListenAddress = "192.168.1.10";
}
