# Replication mail goes to bridgehead; nothing else does.
#
# $Bridgehead is the machine that runs it, $Domain the domain of the replication mailbox, $Servers the Exchange servers that
# may reach it. Outside Exchange, bridgehead listens on port 10025 of an address that these servers can reach.
param(
    [string]   $Bridgehead = '192.0.2.10',
    [string]   $Domain     = 'repl.paris.example',
    [string[]] $Servers    = @('MBX1')
)
$ErrorActionPreference = 'Stop'

# Exchange accepts mail for the domain although no mailbox of its own is in it, and passes it on.
New-AcceptedDomain -Name 'Replication' -DomainName $Domain -DomainType ExternalRelay

# To bridgehead, and only for this domain.
New-SendConnector -Name 'Replication to bridgehead' -Custom `
    -AddressSpaces "SMTP:$Domain;1" -SmartHosts "[$Bridgehead]" -Port 10025 `
    -DNSRoutingEnabled $false -SmartHostAuthMechanism None -SourceTransportServers $Servers

# From bridgehead to the world: an anonymous relay for that one address.
New-ReceiveConnector -Name 'Replication from bridgehead' -Server $Servers[0] -Custom -Bindings '0.0.0.0:2525' `
    -RemoteIPRanges $Bridgehead -PermissionGroups AnonymousUsers
Get-ReceiveConnector 'Replication from bridgehead' |
    Add-ADPermission -User 'NT AUTHORITY\ANONYMOUS LOGON' -ExtendedRights 'Ms-Exch-SMTP-Accept-Any-Recipient'
